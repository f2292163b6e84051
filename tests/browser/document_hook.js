import { useEffect, useState } from 'react';

const useHabittoWebSocket = (userId, token) => {
    const [socket, setSocket] = useState(null);
    const [notifications, setNotifications] = useState([]);
    const [isConnected, setIsConnected] = useState(false);
    
    useEffect(() => {
        if (!userId || !token) return;
        
        const ws = new WebSocket(`ws://localhost:8000/ws/property-notifications/${userId}/?token=${token}`);
        
        ws.onopen = () => {
            setIsConnected(true);
        };
        
        ws.onmessage = (event) => {
            const data = JSON.parse(event.data);
            
            if (data.type === 'property_like' || 
                data.type === 'match_accepted' || 
                data.type === 'match_accepted_by_owner') {
                setNotifications(prev => [...prev, data]);
            }
        };
        
        ws.onclose = () => {
            setIsConnected(false);
        };
        
        setSocket(ws);
        
        return () => {
            ws.close();
        };
    }, [userId, token]);
    
    const markAsRead = (notificationId) => {
        if (socket && socket.readyState === WebSocket.OPEN) {
            socket.send(JSON.stringify({
                type: 'mark_read',
                notification_id: notificationId
            }));
        }
    };
    
    return { notifications, isConnected, markAsRead };
};

export default useHabittoWebSocket;
